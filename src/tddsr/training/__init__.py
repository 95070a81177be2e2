"""Training: data, the loop that every task shares, and the tasks."""
