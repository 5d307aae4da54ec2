"""What a network is: its operators, its channels, and how they leave."""
