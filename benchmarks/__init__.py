"""What this project claims, as commands: `embodichain bench NAME`."""
