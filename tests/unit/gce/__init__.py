"""The provider gce, and the double of the API that it is tested with."""
