// What the module says: a plain function, which test.sh tries without any host.
#pragma once
#include <stddef.h>

#define VERSION "0.1.0"

// Writes a JSON document of at most `max` bytes for a request, sets how long it is, and returns the status.
int answer(const char *method, const char *path, const char *body, size_t body_len, char *out, size_t max, size_t *len);
