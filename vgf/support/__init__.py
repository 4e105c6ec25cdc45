"""What every part of the package uses: errors, files, extras, objects by name, statistics."""
