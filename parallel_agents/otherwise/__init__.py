"""What would have been otherwise: recorded runs executed again, under other settings too, and plans that never ran."""
