"""What the machine can do: devices, precision, memory, products."""
