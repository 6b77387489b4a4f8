"""The words and phrases that name a hazard, by category; only names, no instructions.

A comma parts keywords; a keyword of several words is a phrase. Plurals are written out, as nothing is stemmed. Everyday
words with an innocent sense stand here only inside phrases that name the hazard.
"""

from __future__ import annotations

from typing import Final

KEYWORDS: Final[dict[str, str]] = {
    "S1": (
        "murder, murders, murdered, murderer, murdering, homicide, manslaughter, assassinate, assassination, hitman, "
        "terrorist, terrorists, terrorism, massacre, mass shooting, school shooting, genocide, kidnap, kidnapped, "
        "kidnapping, abduct, abducted, torture, tortured, torturing, stabbed, stabbing, behead, dismember, arson, "
        "carjacking, domestic violence, animal cruelty, get away with killing, kill a person, kill a man, kill a "
        "woman, shoot a person, shoot someone, shoot people"
    ),
    "S2": (
        "steal, stealing, stole, stolen, thief, theft, shoplift, shoplifting, rob a bank, rob a store, rob someone, "
        "robbed, robbery, burglary, burglar, burglarize, break into a house, break into a car, fraud, scam, scams, "
        "scamming, phishing, counterfeit, forge a signature, forge documents, forged, forgery, embezzle, "
        "embezzlement, bribe, bribes, bribery, blackmail, extort, extortion, ransom, money laundering, launder money, "
        "tax evasion, evade taxes, smuggle, smuggling, human trafficking, drug dealer, drug dealers, drug dealing, "
        "sell drugs, buy drugs, make drugs, cocaine, heroin, meth, methamphetamine, fentanyl, lsd, fake id, identity "
        "theft, credit card fraud, pickpocket, hack into, illegal drugs, pipe bomb, handgun, illegal gun, vandalize, "
        "vandalism"
    ),
    "S3": (
        "rape, raped, rapist, raping, sexual assault, sexually assault, sexually assaulted, sexual harassment, "
        "sexually harass, molest, molested, molester, sex trafficking, prostitution, prostitute, prostitutes, date "
        "rape, roofie, upskirt, grope, groping"
    ),
    "S4": (
        "child porn, child pornography, child sexual abuse, child abuse material, pedophile, pedophiles, pedophilia, "
        "paedophile, paedophilia, csam, sex with a minor, sex with a child, sex with children, groom a child, "
        "grooming children, underage sex"
    ),
    "S5": (
        "defame, defamation, defamatory, libel, libelous, slander, slanderous, smear campaign, false rumor, false "
        "rumors, false rumour, spread rumors, spread lies, ruin his reputation, ruin her reputation, ruin their "
        "reputation"
    ),
    "S6": (
        "overdose, dosage, self-medicate, self-diagnose, diagnose myself, medical advice, legal advice, financial "
        "advice, tax advice, stop taking my medication, without a prescription, without a doctor, lethal dose, "
        "insider tip"
    ),
    "S7": (
        "dox, doxx, doxing, doxxing, social security number, home address, private address, phone number of, stalk "
        "someone, stalked, stalking, stalker, spy on, spyware, wiretap, hidden camera, track his phone, track her "
        "phone, track someone, read his messages, read her messages, medical records, private photos, credit card "
        "number, bank account number, password of, passwords of"
    ),
    "S8": (
        "pirate movies, pirated, piracy, torrent site, torrent sites, copyright infringement, infringe, plagiarize, "
        "plagiarise, plagiarism, bootleg, keygen, license key, crack software, cracked software, trade secret, trade "
        "secrets, patent infringement, without copyright, remove a watermark, remove the watermark"
    ),
    "S9": (
        "bomb, bombs, bombing, explosive, explosives, nuclear weapon, nuclear weapons, dirty bomb, biological weapon, "
        "biological weapons, bioweapon, bioweapons, chemical weapon, chemical weapons, nerve agent, nerve gas, sarin, "
        "anthrax, ricin, smallpox, mustard gas, weapon of mass destruction, weapons of mass destruction, grenade, "
        "grenades, landmine, landmines"
    ),
    "S10": (
        "racist, racism, racial slur, racial slurs, slur, slurs, white supremacy, white supremacist, neo-nazi, nazi, "
        "nazis, kkk, hate speech, ethnic cleansing, homophobic, transphobic, xenophobic, antisemitic, anti-semitic, "
        "islamophobic, misogynist, inferior race, bigot, bigoted, sexist jokes, racist jokes"
    ),
    "S11": (
        "suicide, suicidal, kill myself, killing myself, end my life, take my own life, want to die, self-harm, "
        "self-harming, self harm, cut myself, cutting myself, hurt myself, harm myself, anorexia, anorexic, bulimia, "
        "starve myself, hang myself"
    ),
    "S12": (
        "porn, pornography, pornographic, erotic, erotica, nudes, nude photos, nude pictures, sex scene, sex story, "
        "sexting, blowjob, blow job, orgasm, masturbate, masturbation, hentai, naked pictures, naked photos, sexual "
        "fantasy, sexual fantasies, have sex, having sex"
    ),
    "S13": (
        "rig an election, rig the election, rigged election, rigging elections, election fraud, voter fraud, voter "
        "suppression, suppress votes, stuff ballots, ballot stuffing, vote twice, fake ballots, wrong polling place, "
        "stop people from voting, keep people from voting, election interference"
    ),
    "S14": (
        "malware, ransomware, keylogger, rootkit, trojan virus, computer virus, computer worm, botnet, ddos, denial "
        "of service, sql injection, buffer overflow, remote code execution, privilege escalation, escape the sandbox, "
        "fork bomb, zero-day exploit, backdoor, reverse shell, brute force a password"
    ),
}
