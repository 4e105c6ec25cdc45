"""The site: the specification as a book, tutorials, how-to pages, reference and results.

python -m validation.site                # into build/site
"""
