import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answer } from './answer.js';

test('it is up', () => assert.equal(answer('GET', '/{{NAME}}', '').value.status, 'ok'));
test('it echoes', () => assert.equal(answer('POST', '/{{NAME}}/echo', 'hello').value.echo, 'hello'));
test('it has nothing elsewhere', () => assert.equal(answer('GET', '/elsewhere', '').status, 404));
