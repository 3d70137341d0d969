"""What runs inside a job: its processes started and watched, its runs tried again, put back or given up."""
