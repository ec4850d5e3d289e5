"""The types that the rooms hand to each other: frozen, checked where they are made, free of torch and pandas."""
