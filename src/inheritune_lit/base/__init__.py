"""The ground floor: errors, folders, files, YAML, tables, figures, the command line. It knows nothing of models."""
