"""What did the diary try, and why did it fail? Its model is faulty on purpose."""
