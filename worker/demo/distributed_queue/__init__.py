"""`longshore demo --fleet distributed-queue`: a burst of notices, three workers, and an SMS API that takes five calls at once."""
