import unittest

from server import answer


class Answers(unittest.TestCase):
    def test_it_is_up(self):
        self.assertEqual(answer("GET", "/{{NAME}}", b"")[1]["status"], "ok")

    def test_it_echoes(self):
        self.assertEqual(answer("POST", "/{{NAME}}/echo", b"hello")[1]["echo"], "hello")

    def test_it_has_nothing_elsewhere(self):
        self.assertEqual(answer("GET", "/elsewhere", b"")[0], 404)


if __name__ == "__main__":
    unittest.main()
