"""What is known of each feed, declared in data: nothing else in the program names a feed, its table or its columns."""
