"""Reports: what ``tddsr eval -o`` left behind, as tables and a page."""
