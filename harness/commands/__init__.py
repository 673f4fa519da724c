"""One file for each group of commands; the functions that do the work stand beside this folder."""
