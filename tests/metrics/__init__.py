"""Metrics and health, scraped from consumers in processes of their own."""
