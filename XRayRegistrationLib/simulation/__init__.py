"""Simulated X-rays: materials, spectrum, detector, and the poses they are taken from."""
