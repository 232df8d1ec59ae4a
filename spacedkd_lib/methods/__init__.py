"""What a teacher's step and a student's step are: losses, and one file a method."""
