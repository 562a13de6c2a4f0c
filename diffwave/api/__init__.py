"""What can Python code ask for? One typed function for each program of diffwave."""
