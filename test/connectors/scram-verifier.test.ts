import { expect, test } from 'vitest'
import { createScramVerifier } from '../../src/connectors/scram-verifier.ts'

test('the verifier of the password and the salt in the example of RFC 7677 §3', async () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64')
  // As PostgreSQL itself stores it.
  expect(await createScramVerifier('pencil', { salt })).toBe(
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  )
})

test('each verifier has a salt of its own', async () => {
  expect(await createScramVerifier('same')).not.toBe(await createScramVerifier('same'))
})

test.for(['', 'ünïcode', 'with space', 'line\n'])('%j is refused: SASLprep could change it', async (password) => {
  await expect(createScramVerifier(password)).rejects.toThrow(/printable ASCII/)
})
