#include "answer.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void says(const char *method, const char *path, const char *body, int status, const char *expected) {
  char out[256];
  size_t len = 0;
  assert(answer(method, path, body, strlen(body), out, sizeof out, &len) == status);
  assert(len == strlen(expected) && memcmp(out, expected, len) == 0);
}

int main(void) {
  says("GET", "/{{NAME}}", "", 200, "{\"status\":\"ok\",\"version\":\"" VERSION "\"}");
  says("POST", "/{{NAME}}/echo", "a \"b\"\n", 200, "{\"echo\":\"a \\\"b\\\"\\u000a\"}");
  says("GET", "/elsewhere", "", 404, "{\"error\":\"there is nothing here\"}");
  puts("3 tests passed");
}
