"""Leaderboards: from records to rows to text. `stats` counts, `rows` builds, `text` writes. Free of torch."""
