"""A board as text: tables, footnotes, legend, details."""
