"""The commands, one module each: `add` declares it, `run` does it. What they need is imported when they run."""
