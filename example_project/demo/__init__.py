"""`make demo`: real traffic in the shop, and every change on the screen as it arrives."""
