"""What prints a report: HTML, JUnit and Markdown. None of them knows more than the report."""
