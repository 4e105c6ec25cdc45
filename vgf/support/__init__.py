"""What every part of the package uses; it imports nothing else from the package.

Errors and Ctrl-C, files, packages of extras, objects by name, suggestions for mistyped words;
settings as a tree, and TOML; progress, rows of logs, tables, figures, pages, statistics.
"""
