"""The panel's sections, one file each: what is clicked goes to the logic, what the scene holds is shown."""
