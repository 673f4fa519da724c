"""A document of blocks, written as HTML or markdown; escape of hostile text."""
