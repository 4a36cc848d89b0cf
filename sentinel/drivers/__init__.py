"""One outside thing a file: what sentinel acts on, and where it speaks."""
