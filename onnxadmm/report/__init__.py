"""What a run tells: the report as dataclasses, JSON, pages, Markdown, tables and drawings.

Comes in: figures, plans, warnings. Goes out: text and documents; nothing here measures or decides.
"""
