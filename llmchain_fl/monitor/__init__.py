"""The rate of a class over a stream of texts, alarms, drift of the inputs. Runs beside a service, at its site."""
