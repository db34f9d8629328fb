"""The aiohttp application that receives webhooks."""
