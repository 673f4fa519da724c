"""From a store to what people read: board, report, comparison, items, provenance."""
