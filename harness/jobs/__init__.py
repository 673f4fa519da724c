"""Jobs: what a worker does. A checkpoint is built, or evaluated (the evaluator: answers, then scores)."""
