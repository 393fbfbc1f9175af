"""vistool inside the trainers of other libraries, each of which is imported only here."""
