"""What an instrument makes of an ideal pattern: angles, resolution, lines, geometry, windows and counts."""
