#include "answer.h"

#include <stdio.h>
#include <string.h>

// Appends text as it is within a JSON string; what doesn't fit is left out.
static size_t quoted(char *out, size_t at, size_t max, const char *text, size_t len) {
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)text[i];
    char one[8];
    int n = c == '"' || c == '\\' ? snprintf(one, sizeof one, "\\%c", c)
            : c < 0x20            ? snprintf(one, sizeof one, "\\u%04x", c)
                                  : snprintf(one, sizeof one, "%c", c);
    if (at + (size_t)n + 3 > max) break;
    memcpy(out + at, one, (size_t)n);
    at += (size_t)n;
  }
  return at;
}

int answer(const char *method, const char *path, const char *body, size_t body_len, char *out, size_t max, size_t *len) {
  if (strcmp(method, "GET") == 0 && strcmp(path, "/{{NAME}}") == 0) {
    *len = (size_t)snprintf(out, max, "{\"status\":\"ok\",\"version\":\"%s\"}", VERSION);
    return 200;
  }
  if (strcmp(method, "POST") == 0 && strcmp(path, "/{{NAME}}/echo") == 0) {
    size_t at = (size_t)snprintf(out, max, "{\"echo\":\"");
    at = quoted(out, at, max, body, body_len);
    *len = at + (size_t)snprintf(out + at, max - at, "\"}");
    return 200;
  }
  *len = (size_t)snprintf(out, max, "{\"error\":\"there is nothing here\"}");
  return 404;
}
