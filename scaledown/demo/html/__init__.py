"""What is known of a question as HTML: answers, costs and documents. All that comes from a user is escaped."""
