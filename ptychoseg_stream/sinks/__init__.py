"""Ring 2: masks leave."""
