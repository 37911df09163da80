"""The report: its model and schema, renderers, gate."""
