"""What genpipe is compared with, as a competent user writes it; none of it imports genpipe."""
