"""Real simulators behind gymnasium. Nothing heavy is imported until a task is made."""
