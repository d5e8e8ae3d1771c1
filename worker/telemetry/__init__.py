"""What the worker says about itself: numbers (`metrics`) and lines (`logs`)."""
