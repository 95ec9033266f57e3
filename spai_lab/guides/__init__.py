"""The lecturer's guide, written from the chapters and from what only a teacher knows of them."""
