"""How each tool is told about a proxy: one small translator per tool."""
