"""The chapters as full-screen pages for a lecture hall: no code, no exercises, large type, and live controls."""
