"""What the toolkit costs on this machine: time, memory and floating-point operations of its own code, beside the machine's ceilings."""
