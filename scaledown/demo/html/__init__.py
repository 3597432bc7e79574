"""The answers, costs and documents of a question as HTML, in which all that comes from a user is escaped."""
